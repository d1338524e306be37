"""The judgement: facts in, findings out; nothing is looked up here, so every finding can be tried on made-up facts.

[finding for finding in examine(facts) if finding.verdict == "wrong"]
"""

from itertools import chain

from kit.doctor.facts import Facts, Finding
from kit.doctor.gpu import about_gpu
from kit.doctor.imports import about_imports
from kit.doctor.packages import about_packages, about_python
from kit.doctor.room import about_files, about_machine, about_network, about_precision, about_unseen

SUBJECTS = (
    about_python,
    about_packages,
    about_imports,
    about_gpu,
    about_precision,
    about_machine,
    about_files,
    about_network,
    about_unseen,
)


def examine(facts: Facts) -> list[Finding]:
    """What the facts mean, in the order in which a person would look: Python first, the network last."""
    return list(dict.fromkeys(chain.from_iterable(subject(facts) for subject in SUBJECTS)))
