"""Rules for secrets: tokens whose issuer gave them a form, and credentials in URLs, headers, options and assignments.

Written after what the issuers publish about the form of their tokens. An access key's *id* (``AKIA…``), a commit, a request id, an ARN
are no secrets, and investigators need them: no rule speaks of those. Random text without a form is found by the name before it
alone: of a member (`transforms.redact.keys`), or in a text (``password=…``).
"""

from __future__ import annotations

from tallystick.privacy.detectors.checks import is_basic_credential, is_header_value, is_value
from tallystick.privacy.detectors.rule import LEFT, Rule

KEY_WORDS = (
    r"(?:pass(?:word|wd|phrase|code)?|pwd|secret|token|api[_-]?key|authorization|cookie|private[_-]?key"
    r"|client[_-]?secret|access[_-]?key|otp|pin|credential)s?"
)
WORD_LITERALS = (b"pass", b"pwd", b"secret", b"token", b"key", b"authorization", b"cookie", b"otp", b"pin", b"credential")
"""Every match of `KEY_WORDS` contains one of these, in lower case."""

_VALUE = r"""(?:"(?P<secret>[^"\r\n]+)"|'(?P<secret2>[^'\r\n]+)'|(?P<secret3>[^\s"'&;,<>|)}\]\\]+))"""
_WORD_IN_TEXT = rf"(?:(?i:(?:^|[^A-Za-z]){KEY_WORDS})|(?:\b|[a-z0-9])(?:Pass(?:word|phrase)|Secret|Token|ApiKey|PrivateKey|AccessKey|AccountKey|Credential)s?)"
_ANY_WORD = rf"(?i:{KEY_WORDS}|accountkey)"
_HEX, _SIGNS = "[0-9a-f]", "[A-Za-z0-9_-]"


def _form(name: str, *forms: tuple[str, str, int]) -> Rule:
    """A token of one class of signs behind a prefix: (prefix as RE2, signs, how many at least).

    The hint asks for as many, so that a token is one hit however long it is.
    """
    pattern = "|".join(f"{prefix}{signs}{{{least},}}" for prefix, signs, least in forms)
    hint = "|".join(f"{prefix}{signs}{{{least}}}" for prefix, signs, least in forms).replace(r"\b", LEFT)
    return Rule(name, rf"(?:{pattern})", rf"(?:{hint})", LITERALS[name])


LITERALS: dict[str, tuple[bytes, ...]] = {
    "github_token": (b"ghp_", b"gho_", b"ghu_", b"ghs_", b"ghr_", b"github_pat_"),
    "gitlab_token": (b"glpat-", b"gldt-", b"glrt-", b"glptt-", b"glcbt-"),
    "slack_token": (b"xox", b"xapp-", b"xwfp-"),
    "slack_webhook": (b"hooks.slack.com",),
    "stripe_key": (b"k_live_", b"k_test_", b"whsec_"),
    "google_key": (b"aiza", b"gocspx-", b"ya29."),
    "npm_token": (b"npm_",),
    "pypi_token": (b"pypi-",),
    "vault_token": (b"hvs.", b"hvb.", b"hvr."),
    "terraform_token": (b".atlasv1.",),
    "sendgrid_key": (b"sg.",),
    "openai_key": (b"sk-",),
    "anthropic_key": (b"sk-ant-",),
    "huggingface_token": (b"hf_",),
    "digitalocean_token": (b"_v1_",),
    "shopify_token": (b"shp",),
    "docker_token": (b"dckr_pat_", b"dckr_oat_"),
    "databricks_token": (b"dapi",),
    "atlassian_token": (b"atatt3", b"atctt3"),
    "postman_key": (b"pmak-",),
    "newrelic_key": (b"nrak-",),
    "grafana_token": (b"glsa_", b"glc_"),
    "linear_key": (b"lin_api_", b"lin_oauth_"),
    "notion_token": (b"ntn_",),
    "sentry_token": (b"sntrys_", b"sntryu_"),
    "pulumi_token": (b"pul-",),
    "rubygems_key": (b"rubygems_",),
    "planetscale_token": (b"pscale_",),
    "tailscale_key": (b"tskey-",),
    "figma_token": (b"figd_",),
    "airtable_token": (b"pat",),
    "onepassword_token": (b"ops_eyj",),
    "doppler_token": (b"dp.",),
    "age_key": (b"age-secret-key-1",),
    "okta_token": (b"ssws",),
    "tallystick_key": (b"ts_",),
}

SECRET_RULES: tuple[Rule, ...] = (
    _form("github_token", ("gh[pousr]_", "[A-Za-z0-9]", 36), ("github_pat_", "[A-Za-z0-9_]", 22)),
    _form("gitlab_token", ("gl(?:pat|dt|rt|ptt|cbt)-", _SIGNS, 20)),
    _form("slack_token", ("(?:xox[abeoprs]|xwfp)-", "[A-Za-z0-9.-]", 10), ("xapp-[0-9]-", "[A-Za-z0-9-]", 20)),
    _form("slack_webhook", (r"hooks\.slack\.com/(?:services|workflows|triggers)/", "[A-Za-z0-9_/]", 20)),
    _form("stripe_key", ("[rs]k_(?:live|test)_", "[A-Za-z0-9]", 16), ("whsec_", "[A-Za-z0-9+/]", 24)),
    _form("google_key", ("AIza", _SIGNS, 35), ("GOCSPX-", _SIGNS, 28), (r"ya29\.", _SIGNS, 20)),
    _form("npm_token", ("npm_", "[A-Za-z0-9]", 36)),
    _form("pypi_token", ("pypi-AgEI", _SIGNS, 50)),
    _form("vault_token", (r"hv[sbr]\.", _SIGNS, 24)),
    _form("terraform_token", (r"[A-Za-z0-9]{14}\.atlasv1\.", _SIGNS, 60)),
    _form("sendgrid_key", (r"SG\.[A-Za-z0-9_-]{22}\.", _SIGNS, 43)),
    _form("anthropic_key", ("sk-ant-", _SIGNS, 24)),
    _form("openai_key", ("sk-(?:proj|svcacct|admin)-", _SIGNS, 24), ("sk-", "[A-Za-z0-9]", 40)),
    _form("huggingface_token", ("hf_", "[A-Za-z0-9]", 30)),
    _form("digitalocean_token", ("do[opr]_v1_", _HEX, 64)),
    _form("shopify_token", ("shp(?:at|ca|pa|ss)_", "[0-9a-fA-F]", 32)),
    _form("docker_token", ("dckr_[po]at_", _SIGNS, 24)),
    _form("databricks_token", (r"\bdapi", _HEX, 32)),
    _form("atlassian_token", ("AT[AC]TT3", "[A-Za-z0-9_=-]", 60)),
    _form("postman_key", ("PMAK-[0-9a-f]{24}-", _HEX, 34)),
    _form("newrelic_key", ("NRAK-", "[A-Z0-9]", 27)),
    _form("grafana_token", ("glsa_", "[A-Za-z0-9_]", 32), ("glc_", "[A-Za-z0-9+/=]", 32)),
    _form("linear_key", ("lin_(?:api|oauth)_", "[A-Za-z0-9]", 32)),
    _form("notion_token", ("ntn_", "[A-Za-z0-9]", 40)),
    _form("sentry_token", ("sntry[su]_", "[A-Za-z0-9_+/=]", 40)),
    _form("pulumi_token", (r"\bpul-", _HEX, 40)),
    _form("rubygems_key", ("rubygems_", _HEX, 48)),
    _form("planetscale_token", ("pscale_(?:tkn|pw|oauth)_", "[A-Za-z0-9_.-]", 32)),
    _form("tailscale_key", ("tskey-[a-z]+-", "[A-Za-z0-9-]", 20)),
    _form("figma_token", ("figd_", _SIGNS, 40)),
    _form("airtable_token", (r"\bpat[A-Za-z0-9]{14}\.", _HEX, 64)),
    _form("onepassword_token", ("ops_eyJ", "[A-Za-z0-9+/=_-]", 60)),
    _form("doppler_token", (r"\bdp\.(?:pt|st|ct|sa|scim|audit)\.", r"[A-Za-z0-9_.-]", 40)),
    _form("age_key", ("AGE-SECRET-KEY-1", "[0-9A-Z]", 58)),
    _form("okta_token", ("(?i:ssws) +", _SIGNS, 40)),
    _form("tallystick_key", ("ts_[A-Za-z0-9]+_", "[A-Za-z0-9]", 43)),
    Rule(
        "jwt",
        r"eyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*",
        r"eyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8}",
        (b"eyj",),
    ),
    Rule(
        "private_key",
        r"(?s)-----BEGIN [A-Z ]*PRIVATE KEY(?: BLOCK)?-----(?:.*?-----END [A-Z ]*PRIVATE KEY(?: BLOCK)?-----|[A-Za-z0-9+/=\s\\]*)",
        r"-----BEGIN [A-Z ]*PRIVATE KEY",
        (b"-----begin",),
    ),
    Rule(
        "url_password",
        r'://[^\s:/@"\']*:(?P<secret>[^\s/@"\']+)@',
        r'://[^\s:/@"\']*:[^\s/@"\']+@',
        (b"://",),
        tail=2,
    ),
    Rule(
        "url_signature",
        r"(?i)[?&](?:x-amz-signature|x-goog-signature|x-amz-security-token|sig|signature)=(?P<secret>[A-Za-z0-9%+/=_-]{24,})",
        r"(?i)(?:signature|security-token|[?&]sig)=[A-Za-z0-9%+/=_-]{24}",
        (b"signature", b"security-token", b"sig="),
    ),
    Rule(
        "basic_auth",
        r"(?i:basic)(?:\s|%20|\+)+(?P<secret>[A-Za-z0-9+/_-]{4,}={0,2})",
        r"(?i:basic)(?:\s|%20|\+|\\t)+[A-Za-z0-9+/_-]{4}",
        (b"basic",),
        check=is_basic_credential,
        tail=4,
        visible=0,
    ),
    Rule(
        "bearer_token",
        r"(?i:bearer)(?:\s|%20|\+)+(?P<secret>[A-Za-z0-9+/._~-]{16,}=*)",
        r"(?i:bearer)(?:\s|%20|\+|\\t)+[A-Za-z0-9+/._~-]{16}",
        (b"bearer",),
    ),
    Rule(
        "header",
        r"(?i)\b(?:(?:proxy-)?authorization|(?:set-)?cookie2?|x-[a-z0-9-]*(?:key|token|secret|password)|private-token|api-key)[ \t]?:[ \t]*"
        r"(?:basic[ \t]+|bearer[ \t]+|token[ \t]+|aws4-hmac-sha256[ \t]+credential=[^,\s]+,[ \t]*(?:signedheaders=[^,\s]+,[ \t]*)?signature=)?"
        r"""(?P<secret>[^\r\n"']{2,})""",
        r"(?i)(?:authorization|cookie2?|x-[a-z0-9-]{0,64}(?:key|token|secret|password)|private-token|api-key)(?: |\\t)?:(?: |\\t)*"
        r"""[^\s"',{\[\\]{2}""",
        (b"authorization", b"cookie", b"key", b"token", b"secret", b"password"),
        check=is_header_value,
        tail=2,
        visible=0,
    ),
    Rule(
        "assignment",
        rf"{_WORD_IN_TEXT}[ \t]?=[ \t]?{_VALUE}",
        rf"{_ANY_WORD}(?: |\\t)?=(?: |\\t)?[^\s&;,]",
        WORD_LITERALS,
        check=is_value,
        tail=2,
        visible=0,
    ),
    Rule(
        "option",
        rf"(?:^|[\s\"'])--?(?i:(?:[a-z0-9]+[_-])*{KEY_WORDS})[ \t]+{_VALUE}",
        rf"-(?i:(?:[a-z0-9]+[_-])*{KEY_WORDS})(?: |\\t)+[^\s-]",
        WORD_LITERALS,
        check=is_value,
        tail=2,
        visible=0,
    ),
)
