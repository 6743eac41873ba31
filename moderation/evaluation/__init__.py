"""What labels say of finished runs: measures, certificates, drift, and whether a candidate may go live."""
