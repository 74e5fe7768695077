"""namd plans, runs and judges searches and ablations of lung-nodule progression models."""
