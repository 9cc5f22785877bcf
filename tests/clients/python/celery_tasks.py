"""Celery: a broker of lists and blocking pops, results and their announcements, chords, remote control."""

import contextlib
import threading
from urllib.parse import quote

import celery
import celery.result
from celery import chain, chord, group
from celery.contrib.testing.worker import start_worker
from celery.exceptions import Reject

from queues import PATIENCE, equal, until


class Queue:
    """An application with its tasks; `app` has a worker, `other` is the same application elsewhere."""

    def __init__(self, place):
        self.place = place
        self.failures = {}
        self.app, self.other = self.application(), self.application()

    def application(self):
        at = self.place.address()
        password = f":{quote(at['password'])}@" if at["password"] else ""
        url = f"redis://{password}{at['host']}:{at['port']}/0"
        # All keys of an application must be on one shard: that is what a prefix with braces does.
        prefix = {"global_keyprefix": f"{{celery-{self.place.run}}}:"}
        app = celery.Celery(f"tasks-{self.place.run}", broker=url, backend=url, set_as_current=False)
        app.conf.update(
            broker_connection_retry_on_startup=False,
            broker_transport_options=prefix,
            result_backend_transport_options=prefix,
            task_default_queue="work",
            task_send_sent_event=True,
            worker_send_task_events=True,
            worker_hijack_root_logger=False,
        )
        self.tasks(app)
        return app

    def tasks(self, app):
        # Each application has its own: `put_back` counts here.
        @app.task(name="add", shared=False)
        def add(one, other):
            return one + other

        @app.task(name="total", shared=False)
        def total(numbers):
            return sum(numbers)

        @app.task(name="length", shared=False)
        def length(text):
            return len(text)

        @app.task(name="fail", shared=False)
        def fail(text):
            raise ValueError(text)

        @app.task(name="again", shared=False, bind=True, max_retries=5)
        def again(task, failures):
            if task.request.retries < failures:
                raise task.retry(countdown=0)
            return task.request.retries

        @app.task(name="put_back", shared=False, bind=True, acks_late=True)
        def put_back(task, name):
            self.failures[name] = self.failures.get(name, 0) + 1
            if self.failures[name] == 1:
                raise Reject("not now", requeue=True)
            return self.failures[name]

    def send(self, name, *words, **more):
        return self.other.tasks[name].apply_async(words, **more)

    def task(self, name, *words):
        return self.other.tasks[name].s(*words)


@contextlib.contextmanager
def opened(place):
    queue = Queue(place)
    # Failures that are wanted are no news.
    options = {"pool": "threads", "concurrency": 4, "loglevel": "FATAL", "perform_ping_check": False}
    with start_worker(queue.app, shutdown_timeout=PATIENCE, **options):
        yield queue
    queue.app.close()
    queue.other.close()


def results(q):
    sent = [q.send("add", n, n) for n in range(100)]
    equal([result.get(PATIENCE) for result in sent], [2 * n for n in range(100)])
    # Somebody else who knows the id.
    equal(celery.result.AsyncResult(sent[7].id, app=q.app).get(PATIENCE), 14)
    sent[7].forget()
    equal(celery.result.AsyncResult(sent[7].id, app=q.app).state, "PENDING")
    equal(q.send("length", "x" * 3_000_000).get(PATIENCE), 3_000_000)


def groups_and_chains(q):
    found = group(q.task("add", n, 1) for n in range(30)).apply_async()
    equal(found.get(PATIENCE), list(range(1, 31)))
    equal(chain(q.task("add", 1, 2), q.task("add", 10), q.task("add", 100)).apply_async().get(PATIENCE), 113)


def chords(q):
    for size in (1, 2, 40):
        found = chord((q.task("add", n, n) for n in range(size)), q.task("total")).apply_async()
        equal(found.get(PATIENCE), sum(2 * n for n in range(size)))
    failing = chord([q.task("add", 1, 1), q.task("fail", "in a chord")], q.task("total")).apply_async()
    with raised(Exception, "in a chord"):
        failing.get(PATIENCE)


def failures(q):
    with raised(ValueError, "what went wrong"):
        q.send("fail", "what went wrong").get(PATIENCE)
    equal(q.send("again", 3).get(PATIENCE), 3)
    equal(q.send("put_back", "once").get(PATIENCE), 2)


def later(q):
    equal(q.send("add", 1, 1, countdown=0.3).get(PATIENCE), 2)
    expired = q.send("add", 1, 1, countdown=0.2, expires=0.1)
    with raised(celery.exceptions.TaskRevokedError, "expired"):
        expired.get(PATIENCE)


def priorities(q):
    sent = [q.send("add", n, 0, priority=n % 10) for n in range(30)]
    equal([result.get(PATIENCE) for result in sent], list(range(30)))


def remote_control(q):
    """Orders and answers go over channels, patterns and lists of their own."""
    answers = until("the worker answers", lambda: q.other.control.inspect(timeout=2, limit=1).ping())
    equal(list(answers.values()), [{"ok": "pong"}])
    revoked = q.send("add", 1, 1, countdown=600)
    inspect = q.other.control.inspect(timeout=2, limit=1)
    until("the worker has it", lambda: revoked.id in str(inspect.scheduled()))
    revoked.revoke()
    until("the worker knows", lambda: revoked.id in str(inspect.revoked()))
    equal(q.other.control.purge(), 0)


def events(q):
    seen = []

    def listen(connection):
        receiver = q.other.events.Receiver(connection, handlers={"*": seen.append})
        with contextlib.suppress(Exception):
            receiver.capture(limit=None, timeout=PATIENCE, wakeup=True)

    connection = q.other.connection()
    listener = threading.Thread(target=listen, args=(connection,), daemon=True)
    listener.start()

    # The first ones are done before anybody listens.
    def told():
        q.send("add", 1, 1).get(PATIENCE)
        kinds = {}
        for event in list(seen):
            kinds.setdefault(event.get("uuid"), set()).add(event["type"])
        return {"task-sent", "task-received", "task-started", "task-succeeded"} in kinds.values()

    until("a whole task is told", told)
    # Nothing else wakes the listener.
    connection.close()
    listener.join(0.1)


@contextlib.contextmanager
def raised(kind, says):
    try:
        yield
    except kind as error:
        if says not in str(error):
            raise AssertionError(f"the error is {error!r}, without {says!r}") from error
        return
    raise AssertionError(f"no {kind.__name__}")


SCENARIOS = [results, groups_and_chains, chords, failures, later, priorities, remote_control, events]
