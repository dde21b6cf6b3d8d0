"""Which product stands behind a mapping, who makes it, and of what nature its records are.

``nature`` decides the class where an event's category leaves a choice: records of an `api` are calls of it, those of a `database`
statements, those of a `host` its own log.
"""

from __future__ import annotations

from typing import NamedTuple


class Product(NamedTuple):
    """``metadata.product``."""

    name: str
    vendor: str
    nature: str = ""


UNKNOWN_VENDOR = "Unknown"
PRODUCTS: dict[str, Product] = {
    "atlassian": Product("Atlassian audit log", "Atlassian"),
    "auth0": Product("Auth0", "Okta"),
    "aws_cloudtrail": Product("CloudTrail", "AWS", "api"),
    "azure_activity": Product("Azure Monitor", "Microsoft", "api"),
    "duo": Product("Duo", "Cisco"),
    "entra_id": Product("Entra ID", "Microsoft"),
    "gcp_audit": Product("Cloud Audit Logs", "Google", "api"),
    "github_audit": Product("GitHub audit log", "GitHub"),
    "github_webhook": Product("GitHub", "GitHub"),
    "gitlab_audit": Product("GitLab", "GitLab"),
    "google_workspace": Product("Google Workspace", "Google"),
    "keycloak": Product("Keycloak", "Keycloak"),
    "kubernetes_audit": Product("Kubernetes", "Kubernetes", "api"),
    "linux_auditd": Product("Linux audit", "Linux"),
    "m365_audit": Product("Microsoft 365", "Microsoft"),
    "mssql": Product("SQL Server", "Microsoft", "database"),
    "mysql": Product("MySQL", "Oracle", "database"),
    "okta": Product("Okta", "Okta"),
    "onelogin": Product("OneLogin", "One Identity"),
    "onepassword": Product("1Password", "AgileBits"),
    "postgresql": Product("PostgreSQL", "PostgreSQL", "database"),
    "salesforce": Product("Salesforce", "Salesforce"),
    "slack_audit": Product("Slack", "Salesforce"),
    "snowflake": Product("Snowflake", "Snowflake", "database"),
    "teleport": Product("Teleport", "Gravitational"),
    "vault": Product("Vault", "HashiCorp", "api"),
    "windows_security": Product("Windows", "Microsoft", "host"),
}


def product_of(mapping: str, source: str) -> Product:
    """The product of a mapping; without a known one, the source's own name stands for it."""
    return PRODUCTS.get(mapping) or Product(source or mapping or "Unknown", UNKNOWN_VENDOR)
