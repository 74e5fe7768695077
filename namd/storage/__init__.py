"""Where bytes lie: local folders and S3, leases on them, and the layout of artifacts."""
