"""What other distributions may import from here.

>>> from martlet_data.api import prepare, pack
>>> prepared = prepare(run, template)          # reads --dataset, drops and counts bad rows, encodes the rest
>>> prepared.train[0].input_ids                # numpy int32; .labels int32; .token_weights float32 or None
>>> prepare(run, template, mode="rlhf").group  # 2: samples 2k and 2k + 1 are the two conversations of row k
>>> prepared.train.windows(map_over_tasks, Place())  # with --streaming true it is a SampleStream instead
>>> packs = pack(prepared.train.lengths, 4096) # packs[k]: indices of the samples that share one sequence

Importing this module imports numpy, but neither torch nor pyarrow.
"""

from __future__ import annotations

from .cached_export import write_cached_dataset
from .cached_folders import rows_of
from .encoded import EncodedDataset, Sample
from .ledger import DatasetLedger, Dropped, Ledger, RowId
from .load import Counts, Rows, count_rows, load_rows
from .packing import Packs, pack
from .prepare import Prepared, prepare
from .rows import RowError
from .standard import STANDARD_COLUMNS
from .stream import Encoder, Outcome, Place, SampleStream, Task, Window

__all__ = [
    "STANDARD_COLUMNS",
    "Counts",
    "DatasetLedger",
    "Dropped",
    "EncodedDataset",
    "Encoder",
    "Ledger",
    "Outcome",
    "Packs",
    "Place",
    "Prepared",
    "RowError",
    "RowId",
    "Rows",
    "Sample",
    "SampleStream",
    "Task",
    "Window",
    "count_rows",
    "load_rows",
    "pack",
    "prepare",
    "rows_of",
    "write_cached_dataset",
]
