from .hull_points import reference_points as reference_points
from .page import FIELDS as FIELDS
from .page import Report as Report
from .page import write_report as write_report
