"""The SQL of a FOCUS file: a ledger split into its parts, purchases of commitments, and the value of every column.

A quantity, a list price and a ratio of a part are differences of rounded running sums, so that those of a row add up to the row's.
"""

from __future__ import annotations

from sim.results.focus_services import CAPACITY_BLOCK, CAPACITY_RESERVATION, COMMITMENTS
from sim.results.spool import quoted

ALLOCATION_METHOD = "billcast-replica-time"
_COVERED_KINDS = ", ".join(quoted(name) for name in COMMITMENTS)


def _rounded(whole: str, part: str, of: str) -> str:
    """Return `whole` x `part` / `of`, half up, in whole numbers."""
    return f"(2 * ({whole})::HUGEINT * {part} + {of}) // (2 * {of})"


def _difference(whole: str, of: str = "total", upto: str = "upto", before: str = "before") -> str:
    return f"{_rounded(whole, upto, of)} - {_rounded(whole, before, of)}"


_SHARE = ("share_of", "share_upto", "share_before")
_WHOLE = "(ledger.quantity::DECIMAL(28, 9) * 1000000000::DECIMAL(10, 0))::HUGEINT"

# Parts share by what they cost, amortised; of a row that costs nothing by what is billed, else equally. A row without parts is one.
# `upto` is the sum of the weights up to and with this part, `before` that without it. Only narrow rows pass through the windows.
PARTS = f"""
    WITH part AS (
        SELECT row, "use", deployment, service, segment, sum(amount_nano_usd)::HUGEINT AS billed,
            sum(effective_nano_usd)::HUGEINT AS effective
        FROM attribution GROUP BY ALL
    ), weighed AS (
        SELECT row, "use", deployment, service, segment, coalesce(billed, 0) AS billed, coalesce(effective, 0) AS effective,
            list_nano_usd::HUGEINT AS list_nano,
            CASE WHEN billed IS NULL THEN 1 WHEN effective_nano_usd > 0 THEN effective WHEN amount_nano_usd > 0 THEN billed
                ELSE 1 END::HUGEINT AS weight
        FROM (SELECT row, amount_nano_usd, effective_nano_usd, list_nano_usd FROM ledger) LEFT JOIN part USING (row)
    ), summed AS (
        SELECT *, bool_or(coalesce(service, '') <> '') OVER (PARTITION BY row) AS allocated,
            sum(weight) OVER (PARTITION BY row)::HUGEINT AS total,
            sum(weight) OVER (
                PARTITION BY row ORDER BY "use", deployment, service, segment ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
            )::HUGEINT AS upto
        FROM weighed
    ), listed AS (
        SELECT *, upto - weight AS before, {_rounded("list_nano", "upto", "total")} AS list_upto,
            {_rounded("list_nano", "(upto - weight)", "total")} AS list_before
        FROM summed
    )
    SELECT row, "use", deployment, service, segment, billed, effective, allocated, list_upto - list_before AS list,
        if(list_nano > 0, list_upto, upto) AS share_upto, if(list_nano > 0, list_before, before) AS share_before,
        if(list_nano > 0, list_nano, total) AS share_of, {_difference("1000000000000")} AS pico_ratio
    FROM listed
"""
_USAGE = f"""
    SELECT ledger.* EXCLUDE (row, quantity), {_WHOLE} AS whole, row AS number,
        if(charge_category = 'purchase', 'Purchase', 'Usage') AS charge, parts.* EXCLUDE (row)
    FROM ledger JOIN parts USING (row)
"""
# What is paid for a commitment in an hour of the account, used and unused; what is paid up front is a row of the ledger.
PURCHASES = f"""
    SELECT account, month, local_hour, commitment AS pool, commitment, purchase, tariff, source, confidence,
        'commitment' AS category, 'Purchase' AS charge, 'Recurring' AS frequency, false AS allocated,
        CASE WHEN spend THEN 'USD committed' ELSE unit END AS unit,
        CASE WHEN spend THEN '1 per USD committed' ELSE unit_price END AS unit_price,
        sum(amount_nano_usd)::HUGEINT AS billed, sum(effective_nano_usd)::HUGEINT AS effective,
        billed AS list, billed AS list_nano_usd,
        CASE WHEN bool_or(spend) THEN billed
            ELSE sum({_WHOLE})::HUGEINT END AS whole,
        1::HUGEINT AS share_upto, 0::HUGEINT AS share_before, 1::HUGEINT AS share_of
    FROM (SELECT *, commitment_category = 'Spend' AS spend FROM ledger JOIN kinds USING (purchase)) AS ledger
    WHERE charge_category = 'usage' GROUP BY ALL HAVING sum(amount_nano_usd) > 0
"""


CHARGES = f"SELECT * FROM ({_USAGE}) UNION ALL BY NAME {PURCHASES}"
# What small tables are made for; of the ledger and not of its parts, which are many more.
_KEYS = "local_hour, month, unit, unit_price, whole, list_nano_usd, pool, commitment, category"
KEYS = f"SELECT {_KEYS} FROM (SELECT *, {_WHOLE} AS whole FROM ledger) UNION ALL SELECT {_KEYS} FROM ({PURCHASES})"


def _money(nano: str) -> str:
    return f"({nano})::DECIMAL(20, 0) * 0.000000001::DECIMAL(9, 9)"


def expressions(version_of_allocation: bool) -> dict[str, str]:
    """Return the SQL of every column of any version.

    Parameters
    ----------
    version_of_allocation : whether the version has columns for split cost allocation; else `Tags` has what they would hold.
    """
    covered = f"c.purchase IN ({_COVERED_KINDS})"
    purchase, waste = "charge = 'Purchase'", "c.category = 'commitment_waste'"
    used_up = f"({covered} AND NOT {purchase})"
    priced = f"({_difference('pico::HUGEINT', *_SHARE)})::DECIMAL(30, 0) * 0.000000000001::DECIMAL(12, 12)"
    metered = _money(_difference("c.whole", *_SHARE))
    consumed = f"NOT {purchase} AND NOT ({covered} AND {waste})"
    reserved = f"c.purchase IN ('{CAPACITY_RESERVATION}', '{CAPACITY_BLOCK}')"
    spend, promised = "commitment_category = 'Spend'", "coalesce(nullif(c.commitment, ''), c.pool)"
    committed = (
        f"CASE WHEN NOT {covered} THEN NULL WHEN {purchase} AND frequency IS NULL THEN term_quantity::DECIMAL(38, 12) "
        f"WHEN {spend} THEN {_money('effective')} ELSE {priced} END"
    )
    payers = ", ".join(f"'{key}', nullif({key}, '')" for key in ("deployment", "segment", "service"))
    payer = f"json_object({payers}, 'use', \"use\")"
    resource = "json_object('pool', pool_name)"
    tags = resource if version_of_allocation else f"json_merge_patch({resource}, {payer})"
    paid = "allocated AND coalesce(service, '') <> ''"
    name = "concat_ws('/', service, nullif(segment, ''), nullif(deployment, ''), \"use\")"
    return {
        "AllocatedMethodDetails": 'CASE WHEN allocated THEN \'{"Elements":[{"AllocatedRatio":\' '
        "|| (pico_ratio::DECIMAL(13, 0) * 0.000000000001::DECIMAL(12, 12))::DECIMAL(13, 12)::VARCHAR || '}]}' END",
        "AllocatedMethodId": f"CASE WHEN allocated THEN '{ALLOCATION_METHOD}' END",
        "AllocatedResourceId": f"CASE WHEN {paid} THEN account || '/' || {name} END",
        "AllocatedResourceName": f"CASE WHEN {paid} THEN {name} END",
        "AllocatedTags": f"CASE WHEN {paid} THEN nullif(json_merge_patch('{{}}', {payer})::VARCHAR, '{{}}') END",
        "AvailabilityZone": "zone",
        "BilledCost": f"CASE WHEN {used_up} THEN {_money('0')} ELSE {_money('billed')} END",
        "BillingAccountId": "account",
        "BillingAccountName": "account",
        "BillingCurrency": "'USD'",
        "BillingPeriodEnd": "period_end",
        "BillingPeriodStart": "period_start",
        "CapacityReservationId": f"CASE WHEN {reserved} THEN account || '/' || {promised} END",
        "CapacityReservationStatus": f"CASE WHEN {reserved} AND NOT {purchase} THEN if({waste}, 'Unused', 'Used') END",
        "ChargeCategory": "charge",
        "ChargeClass": "NULL",
        "ChargeDescription": "service_name || ', ' || replace(c.category, '_', ' ') || ', ' || unit_price",
        "ChargeFrequency": f"CASE WHEN NOT {purchase} THEN 'Usage-Based' WHEN monthly THEN 'Recurring' "
        "ELSE coalesce(frequency, 'One-Time') END",
        "ChargePeriodEnd": "hour_end",
        "ChargePeriodStart": "hour_start",
        "CommitmentDiscountCategory": "commitment_category",
        "CommitmentDiscountId": f"CASE WHEN {covered} THEN account || '/' || {promised} END",
        "CommitmentDiscountName": f"CASE WHEN {covered} THEN {promised} END",
        "CommitmentDiscountQuantity": committed,
        "CommitmentDiscountStatus": f"CASE WHEN {used_up} THEN if({waste}, 'Unused', 'Used') END",
        "CommitmentDiscountType": "commitment_type",
        "CommitmentDiscountUnit": f"CASE WHEN {covered} THEN if({spend}, 'USD', 'Hours') END",
        "ConsumedQuantity": f"CASE WHEN {consumed} THEN {metered} END",
        "ConsumedUnit": f"CASE WHEN {consumed} THEN consumed_unit END",
        "ContractApplied": _contract_applied(used_up, spend, promised, priced),
        "ContractedCost": _money("list"),
        "ContractedUnitPrice": "list_price",
        "EffectiveCost": f"CASE WHEN {purchase} AND frequency IS NOT NULL THEN {_money('0')} ELSE {_money('effective')} END",
        "HostProviderName": "host",
        "InvoiceId": "account || '-' || month",
        "InvoiceIssuerName": "provider",
        "ListCost": _money("list"),
        "ListUnitPrice": "list_price",
        "PricingCategory": f"CASE WHEN {used_up} THEN 'Committed' WHEN c.purchase = 'spot' THEN 'Dynamic' ELSE 'Standard' END",
        "PricingQuantity": priced,
        "PricingUnit": "pricing_unit",
        "ProviderName": "provider",
        "PublisherName": "provider",
        "RegionId": "region",
        "RegionName": "region",
        "ResourceId": "CASE WHEN lease >= 0 THEN account || '/lease-' || lease END",
        "ResourceName": "CASE WHEN lease >= 0 THEN 'node-' || node END",
        "ResourceType": "CASE WHEN lease >= 0 THEN 'Machine' END",
        "ServiceCategory": "service_category",
        "ServiceName": "service_name",
        "ServiceProviderName": "provider",
        "ServiceSubcategory": "service_subcategory",
        "SkuId": "coalesce(sku, c.tariff)",
        "SkuMeter": "meter",
        "SkuPriceDetails": "sku_details",
        "SkuPriceId": "coalesce(sku || '/', '') || c.tariff",
        "SubAccountId": "NULL",
        "SubAccountName": "NULL",
        "Tags": f"nullif(json_merge_patch('{{}}', {tags})::VARCHAR, '{{}}')",
        "x_Category": "c.category",
        "x_Confidence": "c.confidence",
        "x_LedgerRow": "number::VARCHAR",
        "x_PriceSource": "c.source",
    }


def _contract_applied(used_up: str, spend: str, promised: str, priced: str) -> str:
    """Return what a charge takes of a commitment: its cost of one of dollars, its time of one of machines."""
    cost = f"'\"ContractCommitmentAppliedCost\":' || ({_money('effective')})::VARCHAR"
    time = f'\'"ContractCommitmentAppliedQuantity":\' || ({priced})::VARCHAR || \',"ContractCommitmentAppliedUnit":"Hours"\''
    named = f"to_json(account || '/' || {promised})::VARCHAR"
    begin = f"'{{\"Elements\":[{{\"ContractId\":' || {named} || ',\"ContractCommitmentId\":' || {named} || ','"
    return f"CASE WHEN {used_up} THEN {begin} || if({spend}, {cost}, {time}) || '}}]}}' END"
