"""The record of studies. No torch, no Ray."""
