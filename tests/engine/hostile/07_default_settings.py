"""Changes torch's defaults: dtype, gradients, deterministic mode, number of threads, warnings as errors.

Must hold: the judge's defaults are its own. (A worker without gradients loses the points for gradients: its own doing.)
"""
# spoils
# cell: added
import warnings

import torch

torch.set_default_dtype(torch.float16)
torch.set_grad_enabled(False)
torch.use_deterministic_algorithms(True)
torch.set_num_threads(2)
warnings.simplefilter("error")
