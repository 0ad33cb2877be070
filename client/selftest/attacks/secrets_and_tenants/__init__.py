"""Guests and tenants that look for what belongs to others: earlier invocations, state, names, budgets."""
