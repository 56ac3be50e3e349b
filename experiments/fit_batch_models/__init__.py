"""Efficiencies of batch models from MLPerf Inference results."""
