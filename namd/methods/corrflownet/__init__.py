"""CorrFlowNet: a correlational autoencoder and a background-aligned rectified flow (Wu 2025)."""
