"""namd plans, runs and judges searches and ablations of lung-nodule progression models."""

__version__ = "0.1.0"
