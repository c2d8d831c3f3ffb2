"""A policy on a robot, or served to one."""
