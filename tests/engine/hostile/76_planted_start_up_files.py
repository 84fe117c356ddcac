"""Plants files that Python, IPython, Jupyter, matplotlib and shells read when they start.

Must hold: all of them lie in a folder that dies with the worker; the next worker, and the judge, start clean.
"""
# cell: added
import os
import site
import sys
import sysconfig

code = "import builtins; builtins.GOT = True\n"
homes = ["@HOME@", "/scratch", os.path.expanduser("~"), "/root", "/", "/tmp"]
places = [f"{home}/{name}" for home in homes for name in (
    "sitecustomize.py", "usercustomize.py", ".ipython/profile_default/startup/00-x.py", ".pythonrc.py", ".bashrc", ".profile",
    ".config/matplotlib/matplotlibrc", ".jupyter/jupyter_config.py", "numpy.py", "torch.py", "autograder/__init__.py",
)]
places += [f"{folder}/{name}" for folder in (*sys.path, sysconfig.get_path("purelib"), site.getusersitepackages())
           for name in ("x.pth", "sitecustomize.py", "autograder.py")]
for path in places:
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w") as file:
            file.write(code)
        if not os.path.realpath(path).startswith("/scratch/"):
            print("GOT", path)
    except OSError:
        pass
