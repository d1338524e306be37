"""The page and the pictures of a search: trials.html, with Optuna's own plots.

write_report(Path("runs/tune-photos"), study, ["30 trials", ...], "error rate")
"""

import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState

from kit.files import write_text
from kit.scale.space import described
from kit.scale.study import FINISHED, SAME_AS
from kit.views.pictures import as_url
from kit.views.render import render_template

DPI = 110
TITLES = {
    "history": "Each trial, and the best until then",
    "epochs": "Each trial after each epoch; epoch 0 is the head alone",
    "settings": "By setting",
    "importances": "How much each setting matters (PED-ANOVA)",
}


def write_report(folder: Path, study: optuna.Study, lines: Sequence[str], words: str) -> None:
    """Write pictures/ and trials.html into the folder of a search. lines: the result; words: the name of its figure."""
    from matplotlib import rc_context

    (folder / "pictures").mkdir(exist_ok=True)
    with rc_context(), warnings.catch_warnings():  # Optuna sets a style
        warnings.simplefilter("ignore", UserWarning)  # that few trials tell little
        drawn = {name: _save(axes, folder / "pictures" / f"{name}.png") for name, axes in draw(study, words)}
    pictures = [(TITLES[name], as_url(path.read_bytes(), "PNG")) for name, path in drawn.items()]
    trials = study.get_trials(deepcopy=False)
    rows = [(trial.number, _state(trial), _value(trial), _seconds(trial), _settings(trial)) for trial in trials]
    page = render_template(
        "trials.html", title=study.study_name, lines=lines, words=words, rows=rows, pictures=pictures
    )
    write_text(folder / "trials.html", page)


def draw(study: optuna.Study, words: str) -> Iterator[tuple[str, Any]]:
    """Optuna's plots that these trials allow, each with the name of its file."""
    from optuna.visualization import matplotlib as plots

    trials = study.get_trials(deepcopy=False, states=FINISHED)
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    yield "history", plots.plot_optimization_history(study, target_name=words)
    if any(len(trial.intermediate_values) > 1 for trial in trials):
        yield "epochs", plots.plot_intermediate_values(study)
    yield "settings", plots.plot_slice(study, target_name=words)
    common = set.intersection(*(set(trial.params) for trial in complete))
    settings = {str([trial.params[name] for name in common]) for trial in complete}
    if len({trial.value for trial in complete}) > 1 and len(settings) > 1:
        yield "importances", plots.plot_param_importances(study, target_name=words)


def _save(axes: Any, path: Path) -> Path:
    from matplotlib import pyplot

    figure = np.atleast_1d(axes)[0].figure
    figure.savefig(path, dpi=DPI, bbox_inches="tight")
    pyplot.close(figure)
    return path


def _state(trial: FrozenTrial) -> str:
    return "skipped" if SAME_AS in trial.user_attrs else trial.state.name.lower()


def _value(trial: FrozenTrial) -> str:
    return f"{trial.value:.4f}" if trial.value is not None and SAME_AS not in trial.user_attrs else ""


def _seconds(trial: FrozenTrial) -> str:
    return f"{trial.duration.total_seconds():.1f}" if trial.duration else ""


def _settings(trial: FrozenTrial) -> str:
    because = trial.user_attrs.get("because")
    if SAME_AS in trial.user_attrs:
        because = f"the same as trial {trial.user_attrs[SAME_AS]}"
    return described(trial.params) + (f" ({because})" if because else "")
