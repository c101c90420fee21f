"""The pull agent: dequeues tasks over HTTP and runs a CLI on this machine. It needs no database and no broker.

`__main__` is its command line and `agent` its main thread. `dequeue`, `heartbeat` and `run_watcher` are a thread each,
`task_thread` is one for each task. `state_dir` is what survives a restart.
"""
