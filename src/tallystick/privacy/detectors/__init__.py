"""What in a text is a secret, or about a person: rules (`secrets`, `personal`), their exact tests (`checks`), the search (`scanner`).

Pure: texts in, places out. What becomes of a finding is decided in `transforms.redact`.
"""

from tallystick.privacy.detectors.personal import PERSONAL_RULES
from tallystick.privacy.detectors.rule import Rule
from tallystick.privacy.detectors.scanner import ESCAPES, Hit, Scanner, without_escapes
from tallystick.privacy.detectors.secrets import KEY_WORDS, SECRET_RULES

__all__ = ["ESCAPES", "KEY_WORDS", "PERSONAL_RULES", "SECRET_RULES", "Hit", "Rule", "Scanner", "without_escapes"]
