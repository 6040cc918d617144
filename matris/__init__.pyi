from .ase_model import AseModel as AseModel
from .calculator import MatRISCalculator as MatRISCalculator
from .model.potential import Potential as Potential
from .model.potential import Prediction as Prediction
from .model.potential import load as load
from .relaxation.relax import RelaxRecord as RelaxRecord
from .relaxation.relax import relax as relax
from .torchsim import MatRISTorchSimModel as MatRISTorchSimModel

__version__: str
