"""What can go wrong, thousands of times: `make torture`."""
