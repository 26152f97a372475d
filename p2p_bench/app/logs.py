"""How logs are written for programs: `hydra/job_logging=json_lines`."""

import json
import logging
from datetime import UTC, datetime


class JsonLines(logging.Formatter):
    """A record as a line of JSON: time, level, logger, message, and exception where there is one."""

    def format(self, record: logging.LogRecord) -> str:
        """See `logging.Formatter`."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        elif record.exc_text:
            line["exception"] = record.exc_text
        return json.dumps(line, ensure_ascii=False)
