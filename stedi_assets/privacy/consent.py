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
    newest_first = [
        customers.lastupdatedate.desc(),
        customers.registrationdate.desc(),
        customers[PARTITION].desc(),
    ]
    # All other columns as well, so that the choice is the same on every engine and in every run.
    consent = "sharewithresearchasofdate"
    others = [name for name in customers.columns if name != consent]
    ties = [ibis.asc(customers[name], nulls_first=True) for name in (consent, *others)]
    return (
        customers.mutate(
            rank=ibis.row_number().over(
                group_by=person(customers.email), order_by=newest_first + ties
            )
        )
        .filter(lambda ranked: ranked["rank"] == 0)
        .drop("rank")
    )


def consents_to_research(customers: ir.Table) -> ir.BooleanValue:
    """Whether a record consents: `sharewithresearchasofdate` is neither missing nor 0."""
    return customers.sharewithresearchasofdate.fill_null(0) != 0
