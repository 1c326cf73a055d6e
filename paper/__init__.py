"""Where ledger, results, command line and write-up meet."""
