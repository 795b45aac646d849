"""The table of axes: every setting of a plan, and those among them that a cell may vary in.

Everything that has to know a setting reads it here: options of the command line, the check of a value and its message,
presets, words of the report, columns, the order of tables, and what a comparison calls different. A new axis is a row.
"""

from __future__ import annotations

from collections.abc import Iterable

from bench.baselines import BASELINES, EVENT_BASELINES
from bench.plan.setting import AUTO, REQUIRED, Axis, Setting

BEST, OWN = "best", "own"  # heads
DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2, "float64": 8}
ROOF_OF = {"tf32": "tf32", "autocast": "bfloat16"}  # whose rates bound a precision other than the dtype's own
DEVICES = ("cpu", "cuda")
BATCH_SIZES = {"mse": 32, "bce": 32, "softmax": 256}  # that `auto` stands for; 32 is that of arXiv 2409.17165
STEPS = {"mse": 3000, "bce": 3000, "softmax": 800}
LOSSES = tuple(BATCH_SIZES)


def _tasks() -> Iterable[str]:
    from bench.plan import tasks

    return tasks.names()


# In the order of tables: what a reader looks for first stands first.
AXES = (
    Axis(field="task", name="tasks", flags=("--task",), kind=str, many=True, choices=_tasks, label="{}",
         about="Of {choices}."),
    Axis(field="profiled", name="profiled", kind=str, many=True, choices=lambda: ("forward", "train_step"),
         about="Task to profile: {choices}.", label="{}", words="{}"),
    Axis(field="op", name="ops", kind=str, many=True, choices=lambda: ("selective_scan", "causal_conv", "attention"),
         about="Of {choices}.", label="{}", words="{}"),
    Axis(field="dataset", name="datasets", flags=("--dataset",), kind=str, many=True,
         about="Data sets; see bench.datasets.", label="{}", words="{}"),
    Axis(field="protocol", name="protocol", kind=str, choices=lambda: ("full", "paper"), default="full",
         about="{choices}: full takes every test user and keeps the weights that were best on validation; paper takes "
         "100 users and trains for all steps.", words="{} protocol"),
    Axis(field="refit", name="refit", kind=bool, many=True, default=False, words="refit {}",
         about="Whether what validation chose is fitted again on the training and validation splits."),
    Axis(field="leave_out", name="leave_out", kind=str, many=True, choices=lambda: ("liked", "seen"), default="liked",
         about="{choices}: earlier pairs that no list holds.", words="{} left out"),
    Axis(field="mixer", name="mixers", flags=("--mixer",), kind=str, many=True, optional=True, label="{}",
         about="Each with its parameters behind it, such as mamba:d_state=32; a mixer of your own is MODULE:SPEC."),
    Axis(field="baseline", name="baselines", kind=str, many=True, optional=True, label="{}",
         choices=lambda: {**BASELINES, **EVENT_BASELINES}, about="Of {choices}."),
    Axis(field="own", name="own", kind=str, many=True, choices=lambda: ("none", "vectors", "counts"), default="none",
         words="own {}", about="{choices}: what reaches the scores of a history beside the tower: the sum of its "
         "items' vectors, which the user's vector takes up, or how often the user had each item."),
    Axis(field="backend", name="backends", flags=("--backend",), kind=str, many=True, label="{}",
         about="Each mixer takes the names that are its own; see bench.env."),
    Axis(field="loss", name="losses", flags=("--loss",), kind=str, many=True, choices=lambda: LOSSES,
         about="Of {choices}.", label="{}", words="{}"),
    Axis(field="policy", name="policies", flags=("--policy",), kind=str, many=True, label="{}", words="{}",
         about="How users are kept fresh: recompute, state, kv, kv_window:W, recompute_window:W; each mixer takes "
         "those that it can do."),
    Axis(field="arm", name="arms", flags=("--arm",), kind=str, many=True, label="{}", words="{}",
         choices=lambda: ("frozen", "live", "retrained", "online"), about="{choices}: states as they were at the cut; "
         "states that take every event; and weights updated too, on all that is known or on what came since."),
    Axis(field="states", name="states", kind=str, many=True, choices=lambda: ("stale", "rebuilt"), default="stale",
         about="{choices}: users' states after an update of the weights, as the earlier ones made them or made anew.",
         words="{} states", label="{}"),
    Axis(field="update_days", name="update_days", kind=int, many=True, low=1, default=14, words="updates after {} days",
         about="Days between updates of the weights, and between the points of a curve."),
    Axis(field="features", name="features", kind=str, choices=lambda: ("ids", "attributes"), default="ids",
         about="{choices}: whether the row's id is one more column."),
    Axis(field="direction", name="directions", kind=str, many=True, choices=lambda: ("forward", "train"),
         default="forward", about="{choices}: train is forward and backward.", label="{}", words="{}"),
    Axis(field="readout", name="readouts", kind=str, many=True, choices=lambda: ("all", "last"), default="all",
         about="Of {choices}.", words="reads {}"),
    Axis(field="tower_readout", name="tower_readout", flags=("--readout",), kind=str, many=True, default="cls_last",
         choices=lambda: ("cls_last", "cls_first", "mean", "last_token", "attention_pooling"), words="readout {}",
         about="What a head gets, of {choices}; only the first two have [CLS], and a causal mixer has it last."),
    Axis(field="numeric_tokens", name="numeric_tokens", kind=str, many=True, default="linear", words="{} numbers",
         choices=lambda: ("linear", "periodic", "piecewise_linear"), about="How numbers become tokens, of {choices}."),
    Axis(field="column_order", name="column_order", kind=str, many=True, default="table", words="columns {}",
         about="Of a table's tokens: table, reversed, random:SEED, or (ranking quality) by_importance, the column that "
         "tells most of what was liked in training last."),
    Axis(field="device", name="device", kind=str, choices=lambda: DEVICES, auto=True, default="cpu",
         about="auto, {choices}.", words="{}"),
    Axis(field="dtype", name="dtype", kind=str, many=True, choices=lambda: DTYPE_BYTES, default="float32",
         about="Of {choices}.", words="{}"),
    Axis(field="precision", name="precision", kind=str, many=True, choices=lambda: ("own", "tf32", "autocast"),
         default="own", words="{}", about="Of {choices}: own computes in the dtype. Of float32 towers, tf32 lets a GPU "
         "round the factors of products to ten bits, and autocast multiplies in bfloat16."),
    Axis(field="execution", name="execution", kind=str, many=True, choices=lambda: ("eager", "compile", "graph"),
         default="eager", about="Of {choices}; graph is one CUDA graph a step.", words="{}"),
    Axis(field="n_tokens", name="lengths", flags=("--length",), kind=int, many=True, low=1,
         about="Numbers of tokens L, [CLS] included.", words="L {:,}", label="L{}"),
    Axis(field="history_length", name="history_lengths", flags=("--history-length",), kind=int, many=True, low=1,
         about="Last events of a user that are read.", words="{:,} events", label="H{}"),
    Axis(field="cut", name="cuts", flags=("--cut",), kind=int, many=True, high=1000, default=0, words="cut {}",
         label="C{}", about="Which moment of the data set splits known from future events, counted from 0."),
    Axis(field="targets", name="targets", kind=str, many=True, choices=lambda: ("visit", "window"), default="window",
         words="learns the next {}", about="{choices}: what a history is followed by in training."),
    Axis(field="read_at", name="read_at", kind=str, many=True, choices=lambda: ("all", "last"), auto=True,
         default=AUTO, words="reads {}", about="Whether a tower learns at the end of all visits or, by [CLS], of the "
         "last one of each row; auto: at all where the mixer is causal."),
    Axis(field="positions", name="positions", kind=bool, many=True, default=False, words="positions {}",
         about="Whether each event has a vector of its place in the row."),
    Axis(field="content_tokens", name="content_length", kind=int, default=0,
         about="Tokens of a content tower beside the user tower; 0: one tower.", words="content tower L {:,}"),
    Axis(field="batch_size", name="batch_sizes", flags=("--batch-size",), kind=int, many=True, low=1, auto=True,
         about="Rows a step; in ranking quality pairs (softmax: positives), of histories events; auto: the task's own.",
         words="B {}", label="B{}"),
    Axis(field="resident_users", name="resident_users", kind=int, many=True, low=1, default=1, label="U{}",
         about="Users whose states are in memory; who has an event is drawn from them.", words="{:,} users"),
    Axis(field="cold_share", name="cold_share", kind=float, many=True, high=1, default=0.0,
         about="Share of requests of users whose state is lost, and is made anew from their events.",
         words="{} cold"),
    Axis(field="users", name="users", kind=int, many=True, low=1, default=1000, words="of {:,}",
         about="Users who have events; the states of resident_users of them are in memory."),
    Axis(field="arrivals", name="arrivals", kind=str, many=True, default="poisson", words="{} arrivals",
         about="When events come, and whose: poisson, or a data set whose gaps were recorded."),
    Axis(field="rate", name="rates", flags=("--rate",), kind=float, many=True, auto=True, default=AUTO, label="R{}",
         about="Requests a second; auto: half of what one client after the other reaches.", words="{} requests/s"),
    Axis(field="bound_ms", name="bound_ms", kind=float, many=True, high=1e6, open_ends=True, default=50.0,
         about="What 99 % of the answers have to keep at the highest rate, in milliseconds.", words="within {} ms"),
    Axis(field="max_batch", name="max_batch", kind=int, many=True, low=1, default=1, words="up to {} together",
         about="Requests that are answered together, at most."),
    Axis(field="max_wait_ms", name="max_wait_ms", kind=float, many=True, high=1e6, default=0.0,
         about="How long a request waits for others to be answered with, at most.", words="waits {} ms"),
    Axis(field="catalogue", name="catalogue", kind=int, many=True, low=10, default=10_000, words="{:,} items",
         about="Items that are searched for the ten best."),
    Axis(field="n_layers", name="layers", kind=int, many=True, low=1, high=10_000, about="Blocks a tower.",
         words="{} layers"),
    Axis(field="d_model", name="d_model", kind=int, many=True, low=1, high=1_000_000, about="Width of a token.",
         words="d {}"),
    Axis(field="d_out", name="d_out", kind=int, many=True, high=1_000_000, default=0, words="d out {}",
         about="Width of the vectors of users and items that meet; 0: that of a token."),
    Axis(field="width", name="widths", kind=int, many=True, low=1, high=1_000_000, about="Channels of an op.",
         words="{} channels"),
    Axis(field="d_state", name="d_state", kind=int, many=True, low=1, high=1024, about="States a channel of an op.",
         default=16, words="{} states"),
    Axis(field="d_conv", name="d_conv", kind=int, many=True, low=1, high=1024, default=4,
         about="Taps of a convolution.", words="{} taps"),
    Axis(field="n_heads", name="n_heads", kind=int, many=True, low=1, high=1024, about="Heads of an attention op.",
         default=8, words="{} heads"),
    Axis(field="initial_state", name="initial_state", kind=bool, many=True, default=False,
         about="Whether a scan is given a state.", words="initial state {}"),
    Axis(field="steps", name="steps", kind=int, auto=True, low=1,
         about="Training steps, at most; auto is the loss's own."),
    Axis(field="epochs", name="epochs", kind=float, default=0.0, words="{} epochs",
         about="Passes over the training pairs, at most, instead of steps; 0: steps."),
    Axis(field="learning_rates", name="learning_rates", kind=float, many=True, whole=True, high=1, open_ends=True,
         about="Each is tried in full; validation chooses."),
    Axis(field="dropouts", name="dropouts", kind=float, many=True, whole=True, high=0.999, default=(0.0,),
         about="Each is tried with each learning rate."),
    Axis(field="weight_decays", name="weight_decays", kind=float, many=True, whole=True, default=(1e-5,),
         about="Each is tried with each of these."),
    Axis(field="trials", name="trials", kind=int, default=0, words="{} trials",
         about="So many of these points, the same for every model; 0: all."),
    Axis(field="negatives", name="negatives", kind=int, low=1, about="Sampled for each positive (mse and bce)."),
    Axis(field="id_dropout", name="id_dropout", kind=float, high=0.999,
         about="Share of ids hidden in training, for those who come new."),
    Axis(field="as_long_as", name="as_long_as", kind=str, optional=True, default="", words="as long as {}",
         about="Train for as long as the steps would take with this mixer; match time sets it."),
    Axis(field="threads", name="threads", kind=int, default=0, high=4096, words="{} threads",
         about="CPU threads of a cell; 0 leaves it to torch."),
    Axis(field="processes", name="processes", kind=int, many=True, low=1, high=256, default=1, words="{} processes",
         about="Ranks that train together, sharing a cell's threads, or each with a GPU (DistributedDataParallel)."),
    Axis(field="heap", name="heap", kind=str, choices=lambda: ("kept", "system"), default="kept", words="heap {}",
         about="{choices}: whether freed memory is kept while steps are timed."),
    Axis(field="cache", name="cache", kind=str, many=True, choices=lambda: ("warm", "cold"), default="warm",
         words="cache {}", about="{choices}: cold takes inputs and weights in turn from more sets than the last-level "
         "cache holds."),
    Axis(field="paired_with", name="paired_with", kind=str, optional=True, default="",
         about="Time every cell in turn with this MIXER[/BACKEND] in one process.", words="in turns with {}"),
    Axis(field="seed", name="seeds", flags=("--seed",), kind=int, many=True, high=2**31 - 1, default=0, label="S{}",
         about="Of weights, inputs, pairs and negatives, and of the order of cells."),
)  # fmt: skip

SETTINGS = (
    *AXES,
    Setting(name="rounds", kind=int, low=1, high=10_000, about="Passes over all cells."),
    Setting(name="order", kind=str, choices=lambda: ("random", "given", "small"),
            about="Of the cells in a pass: {choices}; small starts with the smallest."),
    Setting(name="budget_s", flags=("--budget",), kind=float, high=1e7, open_ends=True,
            about="Seconds of timed iterations a cell and round."),
    Setting(name="timeout_s", flags=("--timeout",), kind=float, high=1e7, open_ends=True,
            about="Seconds after which a cell is ended."),
    Setting(name="most_tokens", kind=int, high=10**12,
            about="Leave out points of more tokens a step, B times L; 0: none."),
    Setting(name="only", kind=str, optional=True,
            about="Cells alone that fit all of these, such as \"mixer=mamba,L>=1000\"."),
    Setting(name="cells_per_process", kind=int, low=1, high=10_000,
            about="Cells that share a process, where start-up would dominate."),
    Setting(name="match", kind=str, choices=lambda: ("depth", "params", "time"),
            about="{choices}: the same layers and steps; also as many parameters as Mamba; or as many steps as take "
            "as long as Mamba's, by steps that are timed in turns before a training."),
    Setting(name="vary", kind=str, many=True, optional=True,
            about="Factors around the plan, its centre, one at a time: NAME=VALUE|VALUE, such as layers=1|4; with "
            "several settings in one, 'layers=4 d_model=64', all change together."),
    Setting(name="heads", kind=str, choices=lambda: (BEST, OWN),
            about="{choices}: without n_heads behind it, attention has heads of the width that is fastest on the "
            "device (32 channels on a CPU, 64 on a GPU), or its own 8."),
    Setting(name="ks", flags=("--at",), kind=int, many=True, low=1, about="Cut-offs k of the metrics."),
)  # fmt: skip

BY_NAME = {setting.name: setting for setting in SETTINGS}
BY_FIELD = {axis.field: axis for axis in AXES}


def is_default(field: str, value: object) -> bool:
    """Whether a value says nothing of a cell's identity."""
    axis = BY_FIELD.get(field)
    value = tuple(value) if isinstance(value, list) else value  # as JSON has it
    return axis is not None and axis.default is not REQUIRED and value == axis.default
