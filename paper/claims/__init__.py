"""The ledger: every numbered statement of the paper and every result of this work, each with a check."""
