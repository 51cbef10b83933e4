"JupyterLab's kernels, started warm: a server is told the name of this class."

from jupyter_server.services.kernels.kernelmanager import ServerKernelManager

from warm import WarmKernels


class WarmLabKernelManager(WarmKernels, ServerKernelManager):
    pass
