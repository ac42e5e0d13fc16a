"""Methods of `peft` that cannot be selections here, each with what to use in its place."""

from __future__ import annotations

from surefoot.registry import refuse

REFUSED = {
    "p_tuning_v2": "it is prefix tuning under another name: choose `prefix_tuning`, with width: null",
    "multitask_prompt_tuning": "it trains one prompt on several tasks at once, and a training has one task: choose `prompt_tuning` for each task",
    "poly": "it mixes low-rank additions of several tasks by the task's number, and a training has one task: choose `lora`",
}
for _name, _why in REFUSED.items():
    refuse(_name, kind="selection", why=_why)
