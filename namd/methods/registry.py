"""The methods that exist, as one explicit table: it does not depend on what was imported.

A configuration that names no method means the first.
"""

from types import MappingProxyType

from namd.methods.base import Method
from namd.methods.copy_noise.method import METHOD as COPY_NOISE
from namd.methods.corrflownet.method import METHOD as CORRFLOWNET
from namd.methods.ddl_cxr.method import METHOD as DDL_CXR
from namd.methods.flux.method import METHOD as FLUX
from namd.methods.imageflownet.method import METHOD as IMAGEFLOWNET
from namd.methods.mcwgan.method import METHOD as MCWGAN
from namd.methods.namd.method import METHOD as NAMD
from namd.methods.regression.method import METHOD as REGRESSION
from namd.methods.sd15.method import METHOD as SD15

METHODS: MappingProxyType[str, Method] = MappingProxyType(
    {
        "namd": NAMD,
        "copy_noise": COPY_NOISE,
        "corrflownet": CORRFLOWNET,
        "ddl_cxr": DDL_CXR,
        "flux": FLUX,
        "imageflownet": IMAGEFLOWNET,
        "mcwgan": MCWGAN,
        "regression": REGRESSION,
        "sd15": SD15,
    }
)
