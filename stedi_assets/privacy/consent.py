"""Who a person is, and whether the person consents to research.

The rules only; the tables that apply them are in `assets`.
"""

from __future__ import annotations

import ibis
import ibis.expr.types as ir

from stedi_assets.tables import PARTITION


def person(email: ir.StringValue) -> ir.StringValue:
    """Who an email stands for: emails that agree trimmed and in lower case are one person."""
    return email.strip().lower()


def latest_records(customers: ir.Table) -> ir.Table:
    """Each person's latest record, by `lastupdatedate`, `registrationdate`, ingestion date.

    Of records that tie in all three, one without consent goes before one with it.
    """
    columns = customers.columns
    # Normalising and ranking take longer than joining, so they are left for the few records that
    # are the newest of an email as it is spelled.
    newest = customers.group_by("email").aggregate(lastupdatedate=customers.lastupdatedate.max())
    customers = customers.semi_join(newest, ["email", "lastupdatedate"])
    customers = customers.mutate(who=person(customers.email))
    order = ["lastupdatedate", "registrationdate", PARTITION]
    newest_first = [customers[name].desc() for name in order]
    # Then all that is left, so that the choice is the same on every engine and in every run. No
    # column twice: the second time would undo the first, as Ibis orders.
    others = [name for name in customers.columns if name not in order]
    ties = [ibis.asc(customers[name], nulls_first=True) for name in others]
    keys = [*newest_first, consents_to_research(customers), *ties]
    return (
        customers.mutate(rank=ibis.row_number().over(group_by="who", order_by=keys))
        .filter(lambda ranked: ranked["rank"] == 0)
        .select(*columns)  # and not `drop`, whose SQL is another one in every process
    )


def consents_to_research(customers: ir.Table) -> ir.BooleanValue:
    """Whether a record consents: `sharewithresearchasofdate` is neither missing nor 0."""
    return customers.sharewithresearchasofdate.fill_null(0) != 0
