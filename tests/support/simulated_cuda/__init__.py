"""A CUDA device that is not there: real numbers on the CPU, the rules of CUDA.

    with SimulatedCuda() as cuda:
        task.to(torch.device("cuda", 0))  # the project's code, unchanged
        with cuda.phase("update"):
            update(step)
    assert not cuda.waits["update"]

Enforced: operands on one device; pinned copies that hold NaN until something waits for them; what a graph may capture
(no wait, no unregistered generator, no memory that is freed before the replay), and replays that compute with nothing
but the memory they captured. Recorded: every wait of the host, operations whose shapes depend on data, launches.
"""

from support.simulated_cuda.device import DeviceMismatch, SimulatedCuda
from support.simulated_cuda.graphs import CaptureError
from support.simulated_cuda.tensors import CUDA, SimulatedTensor

__all__ = ["CUDA", "CaptureError", "DeviceMismatch", "SimulatedCuda", "SimulatedTensor"]
