"""Evidence: Merkle trees over events and accounts, signed heads, proofs, receipts, and their offline verification."""
