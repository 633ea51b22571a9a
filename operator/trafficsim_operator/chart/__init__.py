"""
The Helm chart's values as models, and what is written from Python: `python -m trafficsim_operator.chart [--check]`.

What the operator's code knows stands in the chart written from it, and nowhere by hand: the values with their schema
and table, the rights, the CRD, and the manifests that helm renders for those who have no helm. The templates are
written by hand.
"""
