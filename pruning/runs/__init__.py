"""What makes runs durable: a store of jobs and events, workers in processes of their own, and a pool that looks after them."""
