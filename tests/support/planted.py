"""Made-up secrets in the forms that their issuers give them."""

from __future__ import annotations

import base64

A, H = "a1B2c3D4" * 20, "0f1e2d3c" * 20
SECRETS = {
    "github": "ghp_" + A[:36],
    "github_fine": "github_pat_" + A[:40],
    "gitlab": "glpat-" + A[:20],
    "slack": "xoxb-123456789012-abcdef",
    "slack_app": "xapp-1-" + A[:30],
    "stripe": "sk_live_" + A[:24],
    "google": "AIza" + A[:35],
    "google_client": "GOCSPX-" + A[:28],
    "npm": "npm_" + A[:36],
    "pypi": "pypi-AgEI" + A[:60],
    "vault": "hvs." + A[:32],
    "terraform": A[:14] + ".atlasv1." + A[:64],
    "sendgrid": "SG." + A[:22] + "." + A[:43],
    "anthropic": "sk-ant-" + A[:40],
    "openai": "sk-proj-" + A[:40],
    "huggingface": "hf_" + A[:34],
    "digitalocean": "dop_v1_" + H[:64],
    "shopify": "shpat_" + H[:32],
    "docker": "dckr_pat_" + A[:27],
    "databricks": "dapi" + H[:32],
    "atlassian": "ATATT3" + A[:80],
    "postman": "PMAK-" + H[:24] + "-" + H[:34],
    "newrelic": "NRAK-" + "A1B2C3D4E" * 3,
    "grafana": "glsa_" + A[:40],
    "linear": "lin_api_" + A[:40],
    "sentry": "sntrys_" + A[:60],
    "pulumi": "pul-" + H[:40],
    "rubygems": "rubygems_" + H[:48],
    "tailscale": "tskey-auth-" + A[:30],
    "figma": "figd_" + A[:42],
    "jwt": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.abc-_1",
    "tallystick": "ts_abc_" + A[:43],
}


def placements(secret: str) -> dict[str, str]:
    """A secret in texts as they come in audit records, by the kind of place."""
    basic = base64.b64encode(f"user:{secret}".encode()).decode()
    return {
        "value": f"it is {secret}",
        "dsn": f"https://u:{secret}@db.example.com/x",
        "url": f"https://api.example.com/x?access_token={secret}&y=1",
        "header": f"Authorization: Basic {basic}",
    }
