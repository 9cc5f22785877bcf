"""RQ: jobs as hashes, queues as lists, results as streams, workers that hear orders over a channel."""

import contextlib
import logging
import threading
from datetime import timedelta

import redis
import rq
from rq.job import JobStatus

from queues import PATIENCE, equal, until


def add(one, other):
    return one + other


ATTEMPTS = []


def fail(text):
    ATTEMPTS.append(text)
    raise ValueError(text)


class Tasks:
    def __init__(self, place):
        self.place = place
        self.next = 0

    def client(self):
        return redis.Redis(**self.place.address(), socket_timeout=PATIENCE * 2)

    def queue(self):
        self.next += 1
        return rq.Queue(f"{self.place.run}-{self.next}", connection=self.client())

    def work(self, *queues, **more):
        """A worker of this thread, until nothing is left."""
        worker = rq.SimpleWorker(list(queues), connection=self.client())
        worker.work(burst=True, logging_level=logging.CRITICAL, **more)
        return worker


@contextlib.contextmanager
def opened(place):
    logging.getLogger("rq.worker").setLevel(logging.CRITICAL)
    yield Tasks(place)


def results(t):
    queue = t.queue()
    jobs = [queue.enqueue(add, n, n) for n in range(50)]
    equal(len(queue), 50)
    t.work(queue)
    equal([job.return_value() for job in jobs], [2 * n for n in range(50)])
    equal([job.get_status() for job in jobs], [JobStatus.FINISHED] * 50)
    equal(len(queue.finished_job_registry), 50)
    many = queue.enqueue_many([rq.Queue.prepare_data(add, (n, 1)) for n in range(20)])
    t.work(queue)
    equal([job.return_value() for job in many], list(range(1, 21)))


def failures(t):
    queue = t.queue()
    bad = queue.enqueue(fail, "what went wrong")
    t.work(queue)
    equal(bad.get_status(), JobStatus.FAILED)
    equal("what went wrong" in bad.latest_result().exc_string, True)
    equal(queue.failed_job_registry.get_job_ids(), [bad.id])
    queue.failed_job_registry.requeue(bad.id)
    again = queue.enqueue(fail, "three times", retry=rq.Retry(max=2))
    t.work(queue)
    equal([again.get_status(), ATTEMPTS.count("three times"), ATTEMPTS.count("what went wrong")], [JobStatus.FAILED, 3, 2])


def one_after_the_other(t):
    queue = t.queue()
    first = queue.enqueue(add, 1, 2)
    second = queue.enqueue(add, 3, 4, depends_on=first)
    third = queue.enqueue(add, 5, 6, depends_on=[first, second])
    equal([second.get_status(), third.get_status()], [JobStatus.DEFERRED] * 2)
    t.work(queue)
    equal([job.return_value() for job in (first, second, third)], [3, 7, 11])


def later(t):
    queue = t.queue()
    job = queue.enqueue_in(timedelta(hours=1), add, 1, 1)
    equal(queue.scheduled_job_registry.get_job_ids(), [job.id])
    job.cancel()
    equal(job.get_status(), JobStatus.CANCELED)
    job.delete()
    equal(rq.job.Job.exists(job.id, connection=queue.connection), False)


def a_worker_that_waits(t):
    """It blocks on several queues, and a message tells it to end."""
    urgent, usual = t.queue(), t.queue()
    stopped = threading.Event()
    worker = rq.SimpleWorker([urgent, usual], connection=t.client())

    def enqueue():
        with contextlib.suppress(Exception):
            jobs = [queue.enqueue(add, 1, 1) for queue in (usual, urgent, usual)]
            until("they are done", lambda: all(job.get_status() == JobStatus.FINISHED for job in jobs))
            stopped.set()
        # The worker must end in any case.
        worker._stop_requested = True
        urgent.enqueue(add, 0, 0)

    helper = threading.Thread(target=enqueue, daemon=True)
    helper.start()
    worker.work(logging_level=logging.CRITICAL, max_idle_time=PATIENCE)
    helper.join(PATIENCE)
    equal(stopped.is_set(), True)


SCENARIOS = [results, failures, one_after_the_other, later, a_worker_that_waits]
