# A kernel that talks to this machine alone need not warn that it does not encrypt.
get_config().IPKernelApp.log_level = "ERROR"  # noqa: F821
