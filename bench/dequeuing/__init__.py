"""Parts of bench/dequeue.py: the servers it runs on, the load it makes, the baselines it is compared with."""
