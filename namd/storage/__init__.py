"""Storage in local folders and S3, leases on it, and the layout of artifacts."""
