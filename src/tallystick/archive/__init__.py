"""The long-term store: encrypted Parquet chunks, their catalog and manifests, the quarantine, and retiring the journal behind them."""
