"""What bench/dequeue.py needs: the stand it runs on, the load it makes, the peers it is held against."""
