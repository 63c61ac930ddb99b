"""Durable runs: a store of jobs and events, worker processes, and a pool that looks after them."""
