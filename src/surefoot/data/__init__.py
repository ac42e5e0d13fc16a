"""Labelled (or unlabelled) examples: read from files and tables, checked at the door, or taken from a known task.

>>> from surefoot.data import load_data
>>> examples = load_data([{"text": "a joy", "label": "positive"}, {"text": "a bore", "label": "negative"}])
>>> examples.classes, examples.labels.tolist()
(('negative', 'positive'), [1, 0])
"""

from surefoot.data.check import check_training
from surefoot.data.examples import Examples, concatenate, overlap
from surefoot.data.load import load_data
from surefoot.data.tasks import TASKS, Task, export, load_task

__all__ = [
    "TASKS",
    "Examples",
    "Task",
    "check_training",
    "concatenate",
    "export",
    "load_data",
    "load_task",
    "overlap",
]
