"""What ``auto`` drafts with: the source where the text edits it, else what followed before."""

from __future__ import annotations

from .aggressive import Aggressive
from .combined import combination
from .suffix import Suffix

Automatic = combination((Aggressive, Suffix))
