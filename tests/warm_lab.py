"JupyterLab's kernels, started warm: a server is told the name of this class."

import os

from jupyter_server.services.kernels.kernelmanager import ServerKernelManager

from warm import Forked, WarmKernels

if hasattr(os, "fork"):
    Forked.begin()  # while the server and the browser start


class WarmLabKernelManager(WarmKernels, ServerKernelManager):
    pass
