"""Pure decisions: routers and autoscalers. A policy is one file."""
