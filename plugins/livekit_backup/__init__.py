"""Recovery of LiveKit Cloud backup recordings as an Apache Airflow pipeline.

The rooms of this package, in the order in which they may import each other:
``models`` (frozen data), ``core`` (the domain; knows neither Airflow nor boto3),
``hooks`` (Airflow's configuration and S3), ``operators``, ``sensors`` and
``triggers`` (the DAG's parts), ``plugin`` (what Airflow loads).

Importing this package loads nothing else.
"""

__version__ = "0.1.0"
