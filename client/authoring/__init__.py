"""What an author does with a template before anybody else sees it: begin, build, try, test."""
