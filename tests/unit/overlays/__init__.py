"""What lies beside a backend's descriptor and needs no engine to be tried."""
