# policy-accel in an image, for a CPU or for NVIDIA cards: docs/how_to/docker.md.
#     docker build --target cuda --tag policy-accel:cuda .
FROM python:3.11-slim-bookworm AS base
# What the simulators draw with; a compiler, which torch.compile calls.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libegl1 libgl1 libgl1-mesa-dri libgles2 libosmesa6 g++ \
    && rm -rf /var/lib/apt/lists/*
ENV PYTHONUNBUFFERED=1 UV_NO_CACHE=1
WORKDIR /tmp/policy_accel
COPY constraints.txt overrides.txt ./
RUN pip install --no-cache-dir "$(grep '^uv==' constraints.txt)"
# A layer of its own, by far the largest. An index is one with builds for the CPU alone.
ARG TORCH=torch==2.15.0
ARG TORCH_INDEX=
RUN uv pip install --system ${TORCH_INDEX:+--index "$TORCH_INDEX"} "$TORCH"
COPY . .
ARG EXTRAS=all
RUN uv pip install --system --constraints constraints.txt --overrides overrides.txt ".[$EXTRAS]"
RUN useradd --create-home --uid 1000 robot
USER robot
WORKDIR /home/robot
ENTRYPOINT ["policy-accel"]
CMD ["--help"]

FROM base AS cpu

FROM base AS cuda
# Which parts of the host's driver the container sees; graphics is for EGL.
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility,graphics
