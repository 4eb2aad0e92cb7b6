"""CPU devices that stand in for a pod."""

COLLECTIVE_SECONDS = 600


def flags(count: int) -> str:
    """Return the value of XLA_FLAGS that makes `count` devices of the CPU.

    XLA ends the process when a device waits longer than 40 s for the others at a collective, which happens where more
    devices than cores compute on a busy machine. The older emitters of its kernels compile in two thirds of the time,
    and most of the suite's time is compilation; child processes that a test gives other flags compile as users do.
    """
    return (
        f"--xla_force_host_platform_device_count={count}"
        f" --xla_cpu_collective_call_warn_stuck_timeout_seconds={COLLECTIVE_SECONDS}"
        f" --xla_cpu_collective_call_terminate_timeout_seconds={COLLECTIVE_SECONDS}"
        " --xla_cpu_use_fusion_emitters=false"
    )
