from .candidate_store import CandidateStore as CandidateStore
from .database.jobstore import open_job_store as open_job_store
from .database.sqlite.store import SQLiteStore as SQLiteStore
from .documents.candidate import Candidate as Candidate
from .hull.references import load_references as load_references
